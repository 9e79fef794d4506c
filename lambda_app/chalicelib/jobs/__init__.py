"""Jobs, from a submission to the one result that each ends in."""
