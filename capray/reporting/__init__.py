"""The parts of the report: definitions, tables, evidence, what theory expects, the page."""
