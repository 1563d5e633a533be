"""The project's own subcommands, one module each. A module defines the command line; other packages do the work.

Heavy packages are imported only once the command line has been parsed, so that ``--help`` and errors appear at once.
"""

OWN_COMMANDS = {
    "inspect": "look at a data set before training, and write a configuration to start with",
    "confmap": "compute the confidence maps of pictures, sequences, videos and volumes",
    "export": "write a trained network as an ONNX file or as a program of torch.export",
    "crossval": "train and test all folds, one process per fold, and evaluate them together",
    "report": "write a page with the tables, statistics and figures of finished runs",
    "variability": "compare predictive uncertainty and rater variability, and relate both to confidence",
    "sync": "upload W&B runs that were logged offline",
    "dashboard": "create a W&B workspace that shows the runs of a project",
    "train_region": "train the network that finds the insonified region of screens",
    "completion": "print a script with which a shell completes subcommands and options",
    "phantom": "write a synthetic ultrasound data set with known ground truth",
}
