"""Posts deliveries: lanes keep endpoints apart, the worker posts, the ledger writes down what came.

A lane is one endpoint's share of this worker. Nothing here waits for the database while it posts,
nor holds a transaction open meanwhile.
"""
