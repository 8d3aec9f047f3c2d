"""Commands that look at a pipeline's store and topics; mounted by `cli.py`."""
