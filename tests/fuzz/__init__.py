"""Random input for everything that reads what a stranger or a model server wrote."""
