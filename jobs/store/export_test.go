package store

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/jackc/pgx/v5/stdlib"
)

// MigrateTo migrates to further versions.
func (s *Store) MigrateTo(ctx context.Context, more ...[]string) error {
	return s.migrateTo(ctx, append(migrations[:len(migrations):len(migrations)], more...))
}

// Interpose puts something between the store and its database.
func (s *Store) Interpose(between func(driver.Connector) driver.Connector) (err error) {
	var connector driver.Connector
	if s.pool != nil {
		connector = stdlib.GetPoolConnector(s.pool)
	} else if connector, err = sqliteConnector(s.path); err != nil {
		return err
	}
	if err := s.db.Close(); err != nil {
		return err
	}
	s.db = sql.OpenDB(between(connector))
	if s.db.SetMaxIdleConns(0); s.pool == nil {
		s.db.SetMaxOpenConns(1)
	}
	return nil
}
