"""`ibtpo doctor`: asks every part of a deployment how it is. It reads; it changes nothing."""
