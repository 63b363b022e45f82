"""The broker: a small port, the topology as data, and two adapters that keep the same promises."""
