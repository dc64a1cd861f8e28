"""What looking costs, measured."""
