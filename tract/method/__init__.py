"""The method: predictors, objective, metrics and ``TractLitModule``."""
