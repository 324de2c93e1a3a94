// Package integration holds the tests and benchmarks that run exhume as a
// whole: real archives, a real broker, real files, real processes.
package integration
