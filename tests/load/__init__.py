"""Measuring: ratios against a ceiling that is taken in the same run, never bare numbers."""
