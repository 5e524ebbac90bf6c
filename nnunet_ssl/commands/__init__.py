"""One module per subcommand of `nnunet_ssl`: ``add_arguments(parser)`` and ``run(args) -> int``."""
