"""Entry point of ``python -m cm_lightning``."""

from cm_lightning.main import main

if __name__ == "__main__":
    main()
