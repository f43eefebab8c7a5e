package store

import "context"

// MigrateTo migrates to further versions.
func (s *Store) MigrateTo(ctx context.Context, more ...[]string) error {
	return s.migrateTo(ctx, append(migrations[:len(migrations):len(migrations)], more...))
}
