-- Make all values void that were stored with some tags: their generations are gone. Tell all processes.
-- KEYS: the state; keys of the tags
-- ARGV: as publish.lua
begin()
for number = 2, #KEYS do
  redis.call('DEL', KEYS[number]) -- one by one: Lua's stack is bounded
end
publish()
return 1
