"""The HTTP app: composes the packages (`app`), reads the environment (`settings`), is run by `cli`."""
