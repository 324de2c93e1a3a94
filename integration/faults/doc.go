// Package faults breaks everything that exhume depends on, and exhume itself, while
// batches whose outcome is known are restored, and checks that the invariants of the
// design hold meanwhile and afterwards. It has nothing but tests.
//
// 'make faults' runs a short selection, which 'make test' runs too; FAULTS=all adds
// the long ones. Which items are hit, and when, is drawn from a seed. Every test
// prints it and how to run the same again: SEED=….
package faults
