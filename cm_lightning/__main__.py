"""Entry point of ``python -m cm_lightning``."""

import sys

if __name__ == "__main__":
    try:
        from cm_lightning.main import main
    except KeyboardInterrupt:  # before anything has begun
        sys.exit(130)
    main()
