// Package harness runs exhume as a whole for tests: worlds with an archive, roles as
// processes of their own, brokers and networks that can be broken, and the checks of
// the invariants that must hold whatever happens (I1 to I8 of the design).
package harness
