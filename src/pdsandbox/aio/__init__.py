"""The supervisor for asyncio: the same protocol, verdicts and processes, waited for on an event loop."""
