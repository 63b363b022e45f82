"""Who may be trusted with what: outbound addresses, signatures, passwords, tokens, sealed bytes.

Everything here is told the time and its secrets; nothing here reads the environment, the clock or
the database, so that each rule can be tested at any hour with any key.
"""
