// Command exhume brings archived artifacts back, reliably, fast and with proof.
package main

import "os"

func main() { os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr)) }
