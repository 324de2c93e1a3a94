package archive

import (
	"context"
	"encoding/binary"
	"io"
	"math/bits"

	"modernc.org/libc"
	"modernc.org/libc/sys/types"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// database/sql hands out a blob only as a whole. SQLite itself can read one in
// pieces (sqlite3_blob_*), and the driver's package lib has those functions as
// they were translated from C: pointers are uintptr to memory outside Go, and
// every call takes the thread state that libc.NewTLS makes. This file is all
// that knows about it.

// sqliteBlob reads the stored bytes of one artifact through a connection of its
// own.
type sqliteBlob struct {
	ctx    context.Context
	reader *sqliteReader
	tls    *libc.TLS
	db     uintptr // sqlite3*
	blob   uintptr // sqlite3_blob*
	chunk  uintptr // blobChunk bytes outside Go
	offset int64
	size   int64
}

func (r *sqliteReader) blob(ctx context.Context, a schemas.Artifact) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b := &sqliteBlob{ctx: ctx, reader: r, tls: libc.NewTLS()}
	if err := b.open(a); err != nil {
		_ = b.Close()
		return nil, r.fault(ctx, "opening artifact "+a.ID, err)
	}
	return b, nil
}

func (b *sqliteBlob) open(a schemas.Artifact) error {
	m := &scratch{tls: b.tls}
	defer m.free()
	uri, id := m.text(sqliteURI(b.reader.path, b.reader.params)), m.text(a.ID)
	query := m.text(`SELECT rowid, blob_bytes IS NULL FROM artifact WHERE id = ?1`)
	main, table, column := m.text("main"), m.text("artifact"), m.text("blob_bytes")
	out := m.pointer()
	b.chunk = libc.Xmalloc(b.tls, blobChunk)
	if m.failed || b.chunk == 0 {
		return &sqliteError{sqlite3.SQLITE_NOMEM, "out of memory"}
	}

	rc := sqlite3.Xsqlite3_open_v2(b.tls, uri, out, sqlite3.SQLITE_OPEN_READONLY|sqlite3.SQLITE_OPEN_URI, 0)
	b.db = m.value(out)
	if rc != sqlite3.SQLITE_OK {
		return b.failure(rc)
	}
	sqlite3.Xsqlite3_extended_result_codes(b.tls, b.db, 1)
	sqlite3.Xsqlite3_busy_timeout(b.tls, b.db, busyTimeout)

	rc = sqlite3.Xsqlite3_prepare_v2(b.tls, b.db, query, -1, out, 0)
	stmt := m.value(out)
	if rc != sqlite3.SQLITE_OK {
		return b.failure(rc)
	}
	// The statement stays open until the blob is, so that both see the same
	// state of the archive: VACUUM may renumber rows.
	defer sqlite3.Xsqlite3_finalize(b.tls, stmt)
	if rc = sqlite3.Xsqlite3_bind_text(b.tls, stmt, 1, id, int32(len(a.ID)), 0); rc != sqlite3.SQLITE_OK {
		return b.failure(rc)
	}
	switch rc = sqlite3.Xsqlite3_step(b.tls, stmt); {
	case rc == sqlite3.SQLITE_DONE, rc == sqlite3.SQLITE_ROW && sqlite3.Xsqlite3_column_int(b.tls, stmt, 1) != 0:
		return noBytes(a)
	case rc != sqlite3.SQLITE_ROW:
		return b.failure(rc)
	}
	row := sqlite3.Xsqlite3_column_int64(b.tls, stmt, 0)
	rc = sqlite3.Xsqlite3_blob_open(b.tls, b.db, main, table, column, row, 0, out)
	b.blob = m.value(out)
	if rc != sqlite3.SQLITE_OK {
		return b.failure(rc)
	}
	b.size = int64(sqlite3.Xsqlite3_blob_bytes(b.tls, b.blob))
	return nil
}

// Read implements io.Reader.
func (b *sqliteBlob) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n := min(int64(len(p)), blobChunk, b.size-b.offset)
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	if rc := sqlite3.Xsqlite3_blob_read(b.tls, b.blob, b.chunk, int32(n), int32(b.offset)); rc != sqlite3.SQLITE_OK {
		return 0, b.reader.fault(b.ctx, "reading a blob", b.failure(rc))
	}
	b.offset += n
	return copy(p, libc.GoBytes(b.chunk, int(n))), nil
}

// Close closes the connection and frees all memory.
func (b *sqliteBlob) Close() error {
	sqlite3.Xsqlite3_blob_close(b.tls, b.blob)
	rc := sqlite3.Xsqlite3_close_v2(b.tls, b.db)
	libc.Xfree(b.tls, b.chunk)
	b.tls.Close()
	b.db, b.blob, b.chunk = 0, 0, 0
	if rc != sqlite3.SQLITE_OK {
		return fault.New(schemas.CodeArchiveError, "archive %q: closing a blob: SQLite result code %d", b.reader.path, rc)
	}
	return nil
}

// failure is the error behind a result code.
func (b *sqliteBlob) failure(rc int32) error {
	if b.db == 0 {
		return &sqliteError{int(rc), libc.GoString(sqlite3.Xsqlite3_errstr(b.tls, rc))}
	}
	return &sqliteError{int(rc), libc.GoString(sqlite3.Xsqlite3_errmsg(b.tls, b.db))}
}

// scratch is memory outside Go that is freed together.
type scratch struct {
	tls    *libc.TLS
	all    []uintptr
	failed bool
}

func (m *scratch) keep(p uintptr) uintptr {
	m.failed = m.failed || p == 0
	m.all = append(m.all, p)
	return p
}

// text is s with a zero byte after it.
func (m *scratch) text(s string) uintptr {
	p, err := libc.CString(s)
	if err != nil {
		p = 0
	}
	return m.keep(p)
}

// pointer is a place for a pointer, initially nil.
func (m *scratch) pointer() uintptr {
	return m.keep(libc.Xcalloc(m.tls, 1, types.Size_t(pointerSize)))
}

const pointerSize = bits.UintSize / 8

// value is the pointer at a place from pointer.
func (m *scratch) value(p uintptr) uintptr {
	b := libc.GoBytes(p, pointerSize)
	if pointerSize == 8 {
		return uintptr(binary.NativeEndian.Uint64(b))
	}
	return uintptr(binary.NativeEndian.Uint32(b))
}

func (m *scratch) free() {
	for _, p := range m.all {
		libc.Xfree(m.tls, p)
	}
}
