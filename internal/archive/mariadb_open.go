package archive

import (
	"context"
	"database/sql"
	"database/sql/driver"
	_ "embed"
	"errors"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/exhume/exhume/schemas"
)

//go:embed mariadb_schema.sql
var mariadbSchema string

// mariadb is an archive in a MariaDB database, for reading and writing.
type mariadb struct {
	url string // without secrets
	db  *sql.DB
	// probes is a connection apart from the others, which may all be busy.
	probes *sql.DB
	// packet is the server's max_allowed_packet in bytes, as it was when the
	// archive was opened.
	packet int64
}

// patient bounds how long a connection may take from the first byte until it can
// be used; the driver itself bounds the first step only.
type patient struct {
	driver.Connector
	timeout time.Duration
}

func (c patient) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.Connector.Connect(ctx)
}

// openMariaDB opens an archive that exists.
func openMariaDB(ctx context.Context, archiveURL string) (*mariadb, error) {
	return connectMariaDB(ctx, archiveURL, func(m *mariadb) error {
		n, err := m.tables(ctx, tables[:2])
		if err == nil && n < 2 {
			err = noTables(m.url)
		}
		return err
	})
}

// createMariaDB opens an archive and creates what it lacks.
func createMariaDB(ctx context.Context, archiveURL string) (*mariadb, error) {
	return connectMariaDB(ctx, archiveURL, func(m *mariadb) error { return m.create(ctx) })
}

func connectMariaDB(ctx context.Context, archiveURL string, prepare func(*mariadb) error) (*mariadb, error) {
	config, err := mariadbConfig(archiveURL)
	if err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, err
	}
	pool := func(conns int) *sql.DB {
		db := sql.OpenDB(patient{connector, config.Timeout})
		db.SetMaxOpenConns(conns)
		db.SetMaxIdleConns(conns)
		db.SetConnMaxIdleTime(time.Minute)
		return db
	}
	m := &mariadb{url: Redact(archiveURL), db: pool(readers), probes: pool(1)}
	err = m.db.QueryRowContext(ctx, `SELECT @@max_allowed_packet`).Scan(&m.packet)
	if err == nil {
		err = prepare(m)
	}
	if err != nil {
		_ = m.close()
		return nil, m.fault(ctx, "opening it", err)
	}
	return m, nil
}

// tables counts which of the tables are there.
func (m *mariadb) tables(ctx context.Context, names []string) (n int, err error) {
	query, args := in(`SELECT count(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN `, names)
	err = m.db.QueryRowContext(ctx, query, args...).Scan(&n)
	return n, err
}

// create leaves an archive that is complete alone: who stores in it may lack the
// right to create tables. Each statement is committed by itself, in an order in
// which it can be repeated.
func (m *mariadb) create(ctx context.Context) error {
	own, err := m.tables(ctx, tables[:2])
	if err != nil {
		return err
	}
	all, err := m.tables(ctx, tables)
	switch {
	case err != nil:
		return err
	case all == len(tables):
		return nil
	case own < 2 && all > 0:
		return otherTables(m.url)
	}
	for statement := range strings.SplitSeq(strings.TrimSpace(mariadbSchema), ";\n") {
		if _, err := m.db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// in completes a query that ends in IN by a list of placeholders for the values,
// of which there must be one at least.
func in(query string, values []string) (complete string, args []any) {
	args = make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	return query + `(?` + strings.Repeat(`,?`, len(values)-1) + `)`, args
}

func (m *mariadb) ping(ctx context.Context) error {
	var n int
	return m.probes.QueryRowContext(ctx, pingSQL).Scan(&n)
}

func (m *mariadb) name() string { return m.url }

func (m *mariadb) close() error { return errors.Join(m.probes.Close(), m.db.Close()) }

func (m *mariadb) fault(ctx context.Context, doing string, err error) error {
	return serverFault(ctx, m.url, doing, err, mariadbCode)
}

// mariadbNumber is the number of an error of the server, or 0.
func mariadbNumber(err error) uint16 {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

// mariadbCode is the one place that knows what MariaDB's errors mean to exhume.
// The hint, which may be empty, completes the text of the error.
func mariadbCode(err error) (code schemas.Code, hint string) {
	switch mariadbNumber(err) {
	case 0:
		if isNetwork(err) || errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrNoTLS) {
			return schemas.CodeArchiveDown, ""
		}
	case 1205, 1213, 1020, 1317, 1969, 3024, 4031:
		// lock wait timeout, deadlock, record changed, interrupted, a server's
		// time limit, cut off for being idle
		return schemas.CodeArchiveBusy, ""
	case 1146, 1054, 1932:
		return schemas.CodeArchiveCorrupt, "; is this the right database?"
	case 1034, 1035, 1194, 1195, 1712, 1877:
		return schemas.CodeArchiveCorrupt, ""
	case 1044, 1045, 1698:
		return schemas.CodeArchiveDown, "; check user, password and rights"
	case 1049:
		return schemas.CodeArchiveDown, "; create the database or correct its name"
	case 1040, 1203, 1226, 1129, 1130,
		1053, 1152, 1158, 1159, 1160, 1161, 1184, 1927,
		2002, 2003, 2006, 2013,
		1021, 1114, 1037, 1038, 1041:
		// too many connections or host refused; shutting down or connection
		// lost; out of disk or memory
		return schemas.CodeArchiveDown, ""
	case 1142, 1143:
		return schemas.CodeArchiveError, "; this user lacks rights to the archive's tables"
	}
	return schemas.CodeArchiveError, ""
}
