"""headgate backtest: replays a request trace through decide() in a queueing simulation, beside what others would do."""
