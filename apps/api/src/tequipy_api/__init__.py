"""The HTTP app: `app` composes the packages, `settings` reads the environment, `cli` is the command line."""
