// Package producer turns manifests into restore requests: it reads and checks a
// manifest as a stream and submits it as a batch, so that submitting the same
// manifest again finishes only what is missing.
package producer
