//go:build !failpoints

package failpoint

// Here is a step at which a test may kill the program. The name of the package that
// takes the step comes first: worker.published.
func Here(string) {}
