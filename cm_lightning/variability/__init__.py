"""How networks vary, how raters do, and whether confidence predicts either."""
