"""What install_patch.py does: messages < files < transactions < package < patch < installation < checks < verbs.

Each module imports only those before it in this line, and all of them the standard library alone: the installer runs
before anything is installed. Python 3.9 or later.
"""
