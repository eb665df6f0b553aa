//! Whom to be: a rule that makes the n-th account's login, so that 500,000 of them cost nothing; or a file of them.
