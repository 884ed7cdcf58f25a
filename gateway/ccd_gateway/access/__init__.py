"""Who may ask for what and how much of it: keys, callers, permissions, rates, budgets, the ledger."""
