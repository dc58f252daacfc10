-- Invalidate all values with one of some tags by deleting the generations of the tags, and publish this.
-- KEYS: the channel's state; keys of the tags
-- ARGV: as publish.lua
begin()
for number = 2, #KEYS do
  redis.call('DEL', KEYS[number]) -- one at a time, because Lua's stack is bounded
end
publish()
return 1
