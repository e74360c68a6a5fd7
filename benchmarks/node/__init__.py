"""What a node weighs and how quickly it answers: ``python -m benchmarks.node``."""
