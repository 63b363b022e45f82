"""What the five services share: contracts first, then the tools that carry them."""
