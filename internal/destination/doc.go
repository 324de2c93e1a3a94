// Package destination writes restored bytes into a directory tree, confined to
// its root.
//
// The root and symlinks are opened through an [os.Root], so no symlink, however
// it is swapped, leads outside. Everything else is opened, made and renamed by
// single names relative to open directories, never following symlinks, which
// cannot leave them.
//
// Bytes become visible under their final name only when they are complete and
// durable: they are written to a staging directory ".exhume-<id>" at the top of
// the tree (one for each mount below it, because a rename cannot cross; lower
// down where the top may not be written to), synced, renamed, and the
// directories synced. Its process holds a lock in a staging directory and removes
// it when nothing was written for a while, and at the end; those of dead processes
// are swept by whoever opens the tree, or stages something in the same place, next.
//
// A [Bucket] does the same for object storage, where an object appears as a whole.
package destination
