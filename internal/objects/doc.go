// Package objects speaks to S3-compatible object storage, and opens the objects
// that an archive's artifacts point at.
//
// It knows what servers answer and what it means ([Kind]), but not what follows:
// for a missing object that depends on whether it was to be read or written.
//
// A [Store] connects to the endpoint it was opened for and to nothing else. It
// follows no redirects and uses no proxy, and the address behind a name is
// checked when the connection is made, so that a name that changes its meaning
// leads nowhere.
package objects
