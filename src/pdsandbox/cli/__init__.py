"""The command line: run, inspect, demo. A room above the supervisor; nothing in the library imports it."""
