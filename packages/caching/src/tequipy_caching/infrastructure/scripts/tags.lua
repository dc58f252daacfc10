-- Make all values void that were stored with some tags: their generations are gone. Tell all processes.
-- KEYS: the state; keys of the tags
-- ARGV: as tell.lua
redis.call('DEL', unpack(KEYS, 2))
tell()
return 1
