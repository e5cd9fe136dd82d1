"""Generation: from prompts to CoTs and the score distributions behind them."""
