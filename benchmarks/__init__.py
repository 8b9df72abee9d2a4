"""Part of LiquidNet."""
