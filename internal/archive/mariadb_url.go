package archive

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// mariadbOptions are the options that the query of a MariaDB URL may have: those
// of the driver that make sense here, and those of the Python drivers for the
// same things.
var mariadbOptions = map[string]func(c *mysql.Config, value string) error{
	"tls":             tlsMode,
	"ssl":             tlsMode,
	"timeout":         func(c *mysql.Config, v string) error { return duration(&c.Timeout, v) },
	"connect_timeout": func(c *mysql.Config, v string) error { return duration(&c.Timeout, v) },
	"readTimeout":     func(c *mysql.Config, v string) error { return duration(&c.ReadTimeout, v) },
	"read_timeout":    func(c *mysql.Config, v string) error { return duration(&c.ReadTimeout, v) },
	"writeTimeout":    func(c *mysql.Config, v string) error { return duration(&c.WriteTimeout, v) },
	"write_timeout":   func(c *mysql.Config, v string) error { return duration(&c.WriteTimeout, v) },
	"unix_socket":     func(c *mysql.Config, v string) error { c.Net, c.Addr = "unix", v; return nil },
	"charset":         utf8Only,
	"sql_mode":        ignored, // exhume needs the strict one and sets it
	"local_infile":    ignored,
	"autocommit":      ignored,
	// The last two go together; see certificate.
	"ssl_ca":   func(c *mysql.Config, v string) error { return trust(tlsOf(c), v) },
	"ssl_cert": ignored,
	"ssl_key":  ignored,
	"allowCleartextPasswords": func(c *mysql.Config, v string) (err error) {
		c.AllowCleartextPasswords, err = strconv.ParseBool(v)
		return err
	},
}

func ignored(*mysql.Config, string) error { return nil }

func utf8Only(_ *mysql.Config, value string) error {
	if !strings.HasPrefix(strings.ToLower(value), "utf8") {
		return errors.New("names need utf8mb4")
	}
	return nil
}

// tlsMode takes the driver's words, and those for yes and no.
func tlsMode(c *mysql.Config, value string) error {
	switch strings.ToLower(value) {
	case "skip-verify", "preferred":
		c.TLSConfig = strings.ToLower(value)
		return nil
	}
	on, err := strconv.ParseBool(value)
	if err != nil {
		return errors.New("want true, false, skip-verify or preferred")
	}
	c.TLSConfig = strconv.FormatBool(on)
	return nil
}

// duration takes Go's spelling or a number of seconds.
func duration(d *time.Duration, value string) error {
	if _, err := strconv.ParseFloat(value, 64); err == nil {
		value += "s"
	}
	v, err := time.ParseDuration(value)
	if err != nil || v <= 0 {
		return errors.New("want seconds, or a duration like 10s")
	}
	*d = v
	return nil
}

func tlsOf(c *mysql.Config) *tls.Config {
	if c.TLS == nil {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return c.TLS
}

func trust(c *tls.Config, file string) error {
	pem, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return errors.New("the file holds no certificate")
	}
	return nil
}

// mariadbConfig understands the URL of a MariaDB archive.
func mariadbConfig(archiveURL string) (*mysql.Config, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("archive URL %q: %w", Redact(archiveURL), fmt.Errorf(format, args...))
	}
	u, err := url.Parse(archiveURL)
	// The error's text could hold part of a password, and so could what comes after
	// the server when there is an @ in it.
	if err != nil || strings.Contains(u.EscapedPath()+u.RawQuery+u.Fragment, "@") {
		return nil, bad("it is no URL; special characters in user and password are written as %%XX")
	}
	c := mysql.NewConfig()
	c.User, c.Net, c.Addr = u.User.Username(), "tcp", u.Host
	c.Passwd, _ = u.User.Password()
	if c.DBName = strings.TrimPrefix(u.Path, "/"); c.DBName == "" {
		return nil, bad("it names no database; write mariadb://USER:PASSWORD@HOST/DATABASE")
	}
	if u.Hostname() == "" {
		c.Addr = net.JoinHostPort("127.0.0.1", "3306")
	}
	c.Timeout = connectTimeout
	query := u.Query()
	for _, name := range slices.Sorted(maps.Keys(query)) {
		set, known := mariadbOptions[name]
		if !known {
			return nil, bad("option %q is not known; there are %s", name, strings.Join(slices.Sorted(maps.Keys(mariadbOptions)), ", "))
		}
		if err := set(c, query.Get(name)); err != nil {
			return nil, bad("option %s=%s: %w", name, query.Get(name), err)
		}
	}
	if err := certificate(c, query.Get("ssl_cert"), query.Get("ssl_key")); err != nil {
		return nil, bad("options ssl_cert and ssl_key: %w", err)
	}
	c.InterpolateParams = true // lists of ids in one exchange
	c.Logger = &mysql.NopLogger{}
	c.Params = map[string]string{
		"time_zone": "'+00:00'",
		// Nothing may be cut or replaced to fit.
		"sql_mode": "'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
	}
	return c, c.Apply(mysql.Charset("utf8mb4", ""))
}

func certificate(c *mysql.Config, cert, key string) error {
	if cert == "" && key == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err == nil {
		tlsOf(c).Certificates = []tls.Certificate{pair}
	}
	return err
}
