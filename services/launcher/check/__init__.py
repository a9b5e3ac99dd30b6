"""`ibtpo check`: tries model, data and machine before a run, as the run would use them. It writes nothing."""
