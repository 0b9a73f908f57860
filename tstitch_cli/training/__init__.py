"""How the bundled families are trained; imported by `tstitch train` alone, never by profile, plan or sample."""
