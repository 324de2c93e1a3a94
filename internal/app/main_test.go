package app

import (
	"testing"

	"github.com/exhume/exhume/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }
