"""Tasks: each module holds all that is particular to one kind of learning."""
