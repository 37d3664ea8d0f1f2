"""Modalities as tasks see them: one file each, from files to pictures of what the model attended to."""
