"""The project's own subcommands: a module each, with the command line; the work is done by the packages that it calls.

These modules import nothing heavy before the command line was understood, so that help and mistakes answer at once.
"""

OWN_COMMANDS = {
    "crossval": "run all folds, one process each, and evaluate them together",
    "report": "tables, statistics and figures of finished runs, on one page",
    "variability": "how networks vary and how raters do, and whether confidence predicts it",
    "sync": "upload runs that were logged offline to W&B",
    "dashboard": "build the workspace of W&B that shows a project's runs",
    "phantom": "write a synthetic ultrasound data set whose truth is known",
}
