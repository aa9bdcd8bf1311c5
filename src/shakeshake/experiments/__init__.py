"""The paper's tables and figures as declarations, and what runs them: on this machine or on a Ray cluster."""
