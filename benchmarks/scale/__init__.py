"""A discrete-event model of the strategies: what it costs, how it is checked, and what it says of large clusters."""
