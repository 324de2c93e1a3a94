// Package schemas is the wire of exhume: the Go types of every message, the
// subjects and names they travel under, and the stable codes that errors carry.
//
// It is the ground floor of the project. It imports the standard library only,
// so that siblings on the floors above meet here and not in each other.
//
// All messages are JSON in UTF-8. Times are RFC 3339 in UTC. Durations are
// milliseconds as JSON numbers. Sizes are bytes.
package schemas
