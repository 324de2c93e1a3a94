// Package archive reads and writes archives: SQL databases whose table item
// names what was archived and whose table artifact holds the bytes, compressed
// and stored once for each distinct content. An archive is a SQLite file, or
// tables in a PostgreSQL or MariaDB database.
//
// A Reader looks groups of tombstones up, hands out the stored bytes and
// answers questions about items; it never changes the archive. A Writer stores
// new items and records restores. Decode and Reader.Open turn stored bytes into
// content of exactly the declared size; comparing the SHA-256 is left to the
// caller, who has the bytes in hand anyway.
//
// Errors of the database carry a code of package schemas. Context errors are
// returned as they are, but by Ping. Calls to a server that has hung end with their
// context; only connecting has a time limit of its own.
package archive
